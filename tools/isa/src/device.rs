//! A GPU that is not there: compiles a pipeline with its driver and hands back what the compiler says of it.
//!
//! The one file that calls Vulkan, and the only one with unsafe code: each call passes structures built right here,
//! whose pointers live until the call returns, to functions of a device that lives as long as [`Device`].
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};

use anyhow::{Context, Result, bail, ensure};
use ash::{khr, vk};

use crate::spirv::Shader;

/// What a driver says of a pipeline, in its own words.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// Lanes of a subgroup.
    pub width: u32,
    /// All numbers, by the driver's names for them.
    pub numbers: Vec<(String, u64)>,
    /// The instructions; empty where the driver does not hand them out this way.
    pub assembly: String,
}

/// The device that the process's environment makes the driver see: one per process, for a shim reads its settings as
/// it is loaded.
pub struct Device {
    driver: String,
    matrices: Vec<u32>,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    instance: ash::Instance,
    /// Keeps the loader's library loaded.
    _entry: ash::Entry,
}

impl Device {
    /// Opens the first device.
    pub fn open() -> Result<Self> {
        // SAFETY: the library is the Vulkan loader, which has no conditions on loading.
        let entry = unsafe { ash::Entry::load() };
        let entry = entry.context("no Vulkan loader: start this through `cargo xtask isa`")?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: see the head of this file.
        let instance = unsafe { entry.create_instance(&info, None) }.context("no Vulkan driver")?;
        match open_device(&entry, &instance) {
            Ok(Opened { device, driver, matrices }) => {
                let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
                Ok(Self { driver, matrices, device, executables, instance, _entry: entry })
            }
            Err(error) => {
                // SAFETY: nothing was made from the instance.
                unsafe { instance.destroy_instance(None) };
                Err(error.context("no device: start this through `cargo xtask isa`"))
            }
        }
    }

    /// The driver's name and version.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Whether the device has what the shader needs. Some compilers end the process over matrices of sizes that they
    /// do not offer.
    pub fn supports(&self, shader: &Shader) -> bool {
        shader.matrices.is_none_or(|size| self.matrices.contains(&size))
    }

    /// Compiles a shader and reads what the compiler says of it.
    pub fn compile(&self, label: &str, shader: &Shader) -> Result<Compiled> {
        ensure!(self.supports(shader), "{label}: the device has no such matrix units");
        let mut made = Made::default();
        // SAFETY: see the head of this file; all that was made is destroyed below, whatever happened.
        let result = unsafe {
            let result = self.pipeline(shader, &mut made).and_then(|pipeline| self.read(pipeline));
            self.destroy(&made);
            result
        };
        result.with_context(|| label.to_string())
    }

    /// Makes a pipeline as wgpu does.
    unsafe fn pipeline(&self, shader: &Shader, made: &mut Made) -> Result<vk::Pipeline> {
        for bindings in &shader.groups {
            let entries: Vec<_> = bindings
                .iter()
                .map(|&(binding, is_uniform)| {
                    let kind = if is_uniform {
                        vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC
                    } else {
                        vk::DescriptorType::STORAGE_BUFFER
                    };
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(binding)
                        .descriptor_type(kind)
                        .descriptor_count(1)
                        .stage_flags(vk::ShaderStageFlags::COMPUTE)
                })
                .collect();
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&entries);
            made.groups.push(unsafe { self.device.create_descriptor_set_layout(&info, None) }?);
        }
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&made.groups);
        made.layout = unsafe { self.device.create_pipeline_layout(&info, None) }?;
        let info = vk::ShaderModuleCreateInfo::default().code(&shader.words);
        made.module = unsafe { self.device.create_shader_module(&info, None) }?;
        let entry = CString::new(shader.entry.as_str())?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(made.module)
            .name(&entry);
        let capture = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        let info = vk::ComputePipelineCreateInfo::default().flags(capture).layout(made.layout).stage(stage);
        match unsafe { self.device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None) } {
            Ok(pipelines) => made.pipelines = pipelines,
            Err((pipelines, error)) => {
                made.pipelines = pipelines;
                bail!("the pipeline cannot be made: {error}");
            }
        }
        made.pipelines.first().copied().context("no pipeline")
    }

    /// Reads all that the driver says of a pipeline. Drivers list the parts that they split a shader into: the one with
    /// the most instructions is the shader itself.
    unsafe fn read(&self, pipeline: vk::Pipeline) -> Result<Compiled> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        let executables = unsafe { self.executables.get_pipeline_executable_properties(&info) }?;
        let mut found: Vec<Compiled> = Vec::new();
        for (index, executable) in (0..).zip(&executables) {
            let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(index);
            let statistics = unsafe { self.executables.get_pipeline_executable_statistics(&info) }?;
            let numbers =
                statistics.iter().map(|statistic| (text(&statistic.name), value(statistic))).collect();
            let assembly = unsafe { self.assembly(&info) }?;
            found.push(Compiled { width: executable.subgroup_size, numbers, assembly });
        }
        found.into_iter().max_by_key(|one| one.assembly.len()).context("the driver shows no executable")
    }

    /// The instructions: the text that the driver calls assembly; none where there is no such text.
    unsafe fn assembly(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String> {
        let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let device = self.device.handle();
        let mut count = 0;
        // SAFETY: without room the function only counts.
        unsafe { get(device, info, &mut count, std::ptr::null_mut()) }.result()?;
        let mut found = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
        // SAFETY: there is room for `count`; without room for the texts the function gives their sizes.
        unsafe { get(device, info, &mut count, found.as_mut_ptr()) }.result()?;
        let mut texts: Vec<Vec<u8>> = found.iter().map(|one| vec![0; one.data_size]).collect();
        for (one, text) in found.iter_mut().zip(&mut texts) {
            one.p_data = text.as_mut_ptr().cast();
        }
        // SAFETY: each text has the room that its size asks for.
        unsafe { get(device, info, &mut count, found.as_mut_ptr()) }.result()?;
        let at = found.iter().rposition(|one| text(&one.name).to_lowercase().contains("assembly"));
        Ok(at.map_or(String::new(), |at| String::from_utf8_lossy(&texts[at]).trim_end_matches('\0').into()))
    }

    /// Destroys what was made; what was not is null, which Vulkan ignores.
    unsafe fn destroy(&self, made: &Made) {
        unsafe {
            made.pipelines.iter().for_each(|pipeline| self.device.destroy_pipeline(*pipeline, None));
            self.device.destroy_shader_module(made.module, None);
            self.device.destroy_pipeline_layout(made.layout, None);
            made.groups.iter().for_each(|group| self.device.destroy_descriptor_set_layout(*group, None));
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: everything made from the device was destroyed in `compile`.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// What making a pipeline leaves to destroy.
#[derive(Default)]
struct Made {
    groups: Vec<vk::DescriptorSetLayout>,
    layout: vk::PipelineLayout,
    module: vk::ShaderModule,
    pipelines: Vec<vk::Pipeline>,
}

/// An opened device.
struct Opened {
    device: ash::Device,
    /// The driver's name and version.
    driver: String,
    /// Sizes of its square matrices, of f16 summed up in f16 or f32.
    matrices: Vec<u32>,
}

/// Opens the first device with the features that wgpu turns on where they matter to the compiler, and with what the
/// kernels may use: each of them where the device has it.
fn open_device(entry: &ash::Entry, instance: &ash::Instance) -> Result<Opened> {
    // SAFETY: see the head of this file.
    let physical = unsafe { instance.enumerate_physical_devices() }?;
    let physical = *physical.first().context("the driver shows no device")?;
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
    // SAFETY: the device is one that was just listed.
    unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
    // SAFETY: as above.
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }?;
    let has =
        |name: &CStr| extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name));
    ensure!(has(khr::pipeline_executable_properties::NAME), "the driver tells nothing of its pipelines");

    let mut names = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
    let mut executables =
        vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
        .robust_buffer_access2(true)
        .robust_image_access2(true);
    let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
    let mut of_11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut of_12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut of_13 = vk::PhysicalDeviceVulkan13Features::default();
    let offered = offered(instance, physical, &mut of_11, &mut of_12, &mut of_13);
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .features(offered)
        .push_next(&mut executables)
        .push_next(&mut of_11)
        .push_next(&mut of_12)
        .push_next(&mut of_13);
    if has(ash::ext::robustness2::NAME) {
        names.push(ash::ext::robustness2::NAME.as_ptr());
        features = features.push_next(&mut robustness);
    }
    let mut sizes = Vec::new();
    if has(khr::cooperative_matrix::NAME) {
        names.push(khr::cooperative_matrix::NAME.as_ptr());
        features = features.push_next(&mut matrices);
        sizes = matrix_sizes(&khr::cooperative_matrix::Instance::new(entry, instance), physical)?;
    }
    // SAFETY: as above.
    let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
    let computes = families.iter().position(|one| one.queue_flags.contains(vk::QueueFlags::COMPUTE));
    let family = computes.context("the device computes nothing")? as u32;
    let priorities = [1.0];
    let queues =
        [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities)];
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&names)
        .push_next(&mut features);
    // SAFETY: see the head of this file.
    let device =
        unsafe { instance.create_device(physical, &info, None) }.context("the device cannot be opened")?;
    let driver = format!("{} {}", text(&driver.driver_name), text(&driver.driver_info));
    Ok(Opened { device, driver, matrices: sizes })
}

/// Of the core features those that are wanted and offered; the three others are filled in.
fn offered(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    of_11: &mut vk::PhysicalDeviceVulkan11Features<'static>,
    of_12: &mut vk::PhysicalDeviceVulkan12Features<'static>,
    of_13: &mut vk::PhysicalDeviceVulkan13Features<'static>,
) -> vk::PhysicalDeviceFeatures {
    let mut has_11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut has_12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut has_13 = vk::PhysicalDeviceVulkan13Features::default();
    let mut has = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut has_11)
        .push_next(&mut has_12)
        .push_next(&mut has_13);
    // SAFETY: see the head of this file.
    unsafe { instance.get_physical_device_features2(physical, &mut has) };
    let core = has.features;
    let on = |flag: vk::Bool32| flag != 0;
    *of_11 = vk::PhysicalDeviceVulkan11Features::default()
        .storage_buffer16_bit_access(on(has_11.storage_buffer16_bit_access))
        .uniform_and_storage_buffer16_bit_access(on(has_11.uniform_and_storage_buffer16_bit_access));
    *of_12 = vk::PhysicalDeviceVulkan12Features::default()
        .shader_float16(on(has_12.shader_float16))
        .shader_int8(on(has_12.shader_int8))
        .vulkan_memory_model(on(has_12.vulkan_memory_model))
        .vulkan_memory_model_device_scope(on(has_12.vulkan_memory_model_device_scope));
    *of_13 = vk::PhysicalDeviceVulkan13Features::default()
        .robust_image_access(on(has_13.robust_image_access))
        .subgroup_size_control(on(has_13.subgroup_size_control))
        .shader_zero_initialize_workgroup_memory(on(has_13.shader_zero_initialize_workgroup_memory))
        .shader_integer_dot_product(on(has_13.shader_integer_dot_product));
    vk::PhysicalDeviceFeatures::default()
        .robust_buffer_access(on(core.robust_buffer_access))
        .shader_int16(on(core.shader_int16))
}

/// Sizes of the square matrices of f16, as wgpu tells them.
fn matrix_sizes(
    instance: &khr::cooperative_matrix::Instance,
    physical: vk::PhysicalDevice,
) -> Result<Vec<u32>> {
    // SAFETY: the device is one that was just listed.
    let all = unsafe { instance.get_physical_device_cooperative_matrix_properties(physical) }?;
    let of_f16 = |one: &&vk::CooperativeMatrixPropertiesKHR<'_>| {
        let (m, n, k) = (one.m_size, one.n_size, one.k_size);
        m == n && n == k && one.a_type == vk::ComponentTypeKHR::FLOAT16 && one.b_type == one.a_type
    };
    Ok(all.iter().filter(of_f16).map(|one| one.m_size).collect())
}

/// Writes out what C code of this process has printed and not yet written: one driver prints its listings.
pub fn flush() {
    unsafe extern "C" {
        fn fflush(stream: *mut std::ffi::c_void) -> std::ffi::c_int;
    }
    // SAFETY: without a stream it is all of them, which the C library allows at any time.
    unsafe { fflush(std::ptr::null_mut()) };
}

/// A statistic as a whole number.
fn value(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> u64 {
    // SAFETY: the format says which member is set.
    unsafe {
        match statistic.format {
            vk::PipelineExecutableStatisticFormatKHR::UINT64 => statistic.value.u64,
            vk::PipelineExecutableStatisticFormatKHR::INT64 => statistic.value.i64.try_into().unwrap_or(0),
            vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => statistic.value.f64 as u64,
            _ => u64::from(statistic.value.b32),
        }
    }
}

/// The text of a fixed array that ends with a zero.
fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into()
}
