//! RADV on hardware that is not there: compiles a pipeline and says what became of it.
//!
//! The one file that calls Vulkan, and the only one with unsafe code: each call passes structures built right here,
//! whose pointers live until the call returns, to functions of a device that lives as long as [`Radv`].
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use ash::{khr, vk};

use crate::listing::{Loop, hot_loops};
use crate::spirv::Shader;

/// What the compiler says of a shader.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    /// The shader.
    pub label: String,
    /// The GPU family.
    pub family: String,
    /// Lanes of a wave.
    pub wave: u32,
    /// Lanes of a workgroup.
    pub lanes: u32,
    /// All numbers, by the driver's names for them.
    pub numbers: Vec<(String, u64)>,
    /// The loops with the arithmetic.
    pub loops: Vec<Loop>,
    /// The instructions.
    pub isa: String,
}

impl Statistics {
    /// The number that the driver calls by this name; 0 where it has none.
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }

    /// Vector registers of a lane.
    pub fn vgprs(&self) -> u64 {
        self.number("VGPRs")
    }

    /// Scalar registers of a wave.
    pub fn sgprs(&self) -> u64 {
        self.number("SGPRs")
    }

    /// Registers that went to memory, and bytes of scratch memory: anything but 0 is a spill.
    pub fn spills(&self) -> u64 {
        self.number("Spilled VGPRs") + self.number("Spilled SGPRs") + self.number("Scratch size")
    }

    /// Workgroup memory in bytes.
    pub fn lds_bytes(&self) -> u64 {
        self.number("LDS size")
    }

    /// Waves that a SIMD can hold.
    pub fn occupancy(&self) -> u64 {
        self.number("Subgroups per SIMD")
    }

    /// The smallest share of fma among the vector instructions of a hot loop, in percent; 0 without a hot loop.
    pub fn fma_percent(&self) -> f64 {
        let shares = self.loops.iter().map(Loop::fma_percent);
        if self.loops.is_empty() { 0.0 } else { shares.fold(100.0, f64::min) }
    }
}

/// A device of RADV for one family. One at a time, because the family is a matter of the process's environment:
/// opening another one waits until this one is dropped.
pub struct Radv {
    family: String,
    driver: String,
    matrices: bool,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    instance: ash::Instance,
    /// Keeps the loader's library loaded.
    _entry: ash::Entry,
    /// Dropped last.
    _alone: MutexGuard<'static, ()>,
}

impl Radv {
    /// Opens RADV for a GPU family.
    pub fn open(family: &str) -> Result<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: what else reads the environment, past Rust's own lock, is the driver, and no other one is open.
        unsafe {
            std::env::set_var("RADV_FORCE_FAMILY", family);
            // Statistics of another run must not come out of the shader cache without their representations.
            std::env::set_var("MESA_SHADER_CACHE_DISABLE", "true");
        }
        // SAFETY: the library is the Vulkan loader, which has no conditions on loading.
        let entry = unsafe { ash::Entry::load() };
        let entry = entry.context("no Vulkan loader: start this through `cargo xtask isa`")?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: see the head of this file.
        let instance = unsafe { entry.create_instance(&info, None) }.context("no Vulkan driver")?;
        match open_device(&instance) {
            Ok(Opened { device, driver, matrices }) => {
                let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
                Ok(Self {
                    family: family.into(),
                    driver,
                    matrices,
                    device,
                    executables,
                    instance,
                    _entry: entry,
                    _alone: alone,
                })
            }
            Err(error) => {
                // SAFETY: nothing was made from the instance.
                unsafe { instance.destroy_instance(None) };
                Err(error.context(format!(
                    "RADV for {family} cannot be had: start this through `cargo xtask isa`"
                )))
            }
        }
    }

    /// The driver's name and version.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Whether the family has what the shader needs.
    pub fn supports(&self, shader: &Shader) -> bool {
        self.matrices || !shader.matrices
    }

    /// Compiles a shader and reads what the compiler says of it.
    pub fn compile(&self, label: &str, shader: &Shader) -> Result<Statistics> {
        // The compiler would end the process.
        ensure!(self.supports(shader), "{label}: {} has no matrix units", self.family);
        let mut made = Made::default();
        // SAFETY: see the head of this file; all that was made is destroyed below, whatever happened.
        let result = unsafe {
            let result = self.pipeline(shader, &mut made).and_then(|pipeline| self.read(pipeline));
            self.destroy(&made);
            result
        };
        let read = result.with_context(|| format!("{label} on {}", self.family))?;
        Ok(Statistics { label: label.into(), family: self.family.clone(), lanes: shader.lanes, ..read })
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

    /// Reads all that the driver says of a pipeline.
    unsafe fn read(&self, pipeline: vk::Pipeline) -> Result<Statistics> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        let executables = unsafe { self.executables.get_pipeline_executable_properties(&info) }?;
        ensure!(executables.len() == 1, "{} executables instead of one", executables.len());
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
        let statistics = unsafe { self.executables.get_pipeline_executable_statistics(&info) }?;
        let numbers = statistics.iter().map(|statistic| (text(&statistic.name), value(statistic))).collect();
        let isa = unsafe { self.assembly(&info) }?;
        let wave = executables[0].subgroup_size;
        Ok(Statistics { wave, numbers, loops: hot_loops(&isa), isa, ..Statistics::default() })
    }

    /// The instructions: the last text that the compiler shows.
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
        let at = found.iter().position(|one| text(&one.name).contains("Assembly"));
        let at = at.context("the driver shows no instructions")?;
        Ok(String::from_utf8_lossy(&texts[at]).trim_end_matches('\0').into())
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

impl Drop for Radv {
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
    /// Whether it has matrix units.
    matrices: bool,
}

/// Opens the first device with the features that wgpu turns on where they matter to the compiler, and with what the
/// kernels may use.
fn open_device(instance: &ash::Instance) -> Result<Opened> {
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

    let mut names =
        vec![khr::pipeline_executable_properties::NAME.as_ptr(), ash::ext::robustness2::NAME.as_ptr()];
    let mut executables =
        vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
        .robust_buffer_access2(true)
        .robust_image_access2(true);
    let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
    let mut of_11 = vk::PhysicalDeviceVulkan11Features::default()
        .storage_buffer16_bit_access(true)
        .uniform_and_storage_buffer16_bit_access(true);
    let mut of_12 = vk::PhysicalDeviceVulkan12Features::default()
        .shader_float16(true)
        .shader_int8(true)
        .vulkan_memory_model(true)
        .vulkan_memory_model_device_scope(true);
    let mut of_13 = vk::PhysicalDeviceVulkan13Features::default()
        .robust_image_access(true)
        .subgroup_size_control(true)
        .shader_zero_initialize_workgroup_memory(true)
        .shader_integer_dot_product(true);
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .features(vk::PhysicalDeviceFeatures::default().robust_buffer_access(true).shader_int16(true))
        .push_next(&mut executables)
        .push_next(&mut robustness)
        .push_next(&mut of_11)
        .push_next(&mut of_12)
        .push_next(&mut of_13);
    // Only the families with matrix units have them.
    if has(khr::cooperative_matrix::NAME) {
        names.push(khr::cooperative_matrix::NAME.as_ptr());
        features = features.push_next(&mut matrices);
    }
    let priorities = [1.0];
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&priorities)];
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&names)
        .push_next(&mut features);
    // SAFETY: see the head of this file.
    let device =
        unsafe { instance.create_device(physical, &info, None) }.context("the device cannot be opened")?;
    let driver = format!("{} {}", text(&driver.driver_name), text(&driver.driver_info));
    Ok(Opened { device, driver, matrices: has(khr::cooperative_matrix::NAME) })
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
